"""The HTTP face of a predictor: a page, files in, JSON out, one status and one line for whatever can't be answered.

Any ASGI server runs it; `ray_server` lets Ray Serve do so.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from pydantic import ValidationError
from starlette.middleware.trustedhost import TrustedHostMiddleware

from morphmlp.data.decoding.sources import is_image
from morphmlp.errors import ConfigError
from morphmlp.prediction.sliding import sliding
from morphmlp.serving.answers import (
    FORMS,
    ErrorAnswer,
    HealthAnswer,
    LimitsAnswer,
    PathQuestion,
    PredictionAnswer,
    ServerAnswer,
)
from morphmlp.serving.files import AllowedFolders, UploadFolder
from morphmlp.serving.limits import RefusedError
from morphmlp.serving.page import page
from morphmlp.serving.predictor import Predictor, Question
from morphmlp.serving.refusals import Metered, add_refusals
from morphmlp.serving.scene_answers import Form

_FAULTS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorAnswer, "description": text}
    for status, text in {
        400: "a parameter or the body is wrong",
        403: "the path isn't in an allowed folder",
        404: "there is no such file in an allowed folder",
        408: "the sender stands still, or takes too long",
        413: "larger or longer than is taken",
        415: "no video or image, or the other kind than the network takes",
        422: "damaged: it can't be decoded",
        503: "as many requests wait as are taken; Retry-After says when to try again",
        507: "the server's disk is full",
    }.items()
}
_MOST_JSON_BYTES = 2**16
_QUESTION = {
    "requestBody": {"required": True, "content": {"application/json": {"schema": PathQuestion.model_json_schema()}}}
}
_BODY = {
    "requestBody": {
        "required": True,
        "description": "the bytes of the file, as they are",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


def create_app(
    predictor: Predictor,
    *,
    location: str,
    folders: AllowedFolders,
    uploads: UploadFolder,
    hosts: Sequence[str] = (),
) -> FastAPI:
    """The application. `location` is that of the weights; `hosts` are the names by which it may be called, none: any.

    When it ends it closes the predictor and removes the folder of uploads.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        predictor.close()
        uploads.close()

    # The pages that FastAPI has for its documentation load scripts from another host.
    app = FastAPI(title="morphmlp", docs_url=None, redoc_url=None, lifespan=lifespan)
    app.add_middleware(Metered, meter=predictor.meter)
    if hosts:  # a page of another site may give this machine a name of its own
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))
    add_refusals(app)
    _add_pages(app, predictor, location=location, folders=folders)
    _add_predictions(app, predictor, folders=folders, uploads=uploads)
    return app


def question_of(
    predictor: Predictor, *, name: str, top: int, window: str | None, hop: str | None, answer: Form = "json"
) -> Question:
    """What is asked of a file of this name.

    Raises:
        RefusedError: The network can't take such windows, or gives no such answers.
    """
    if answer != "json" and predictor.model.config.segmentation is None:
        raise RefusedError(400, f"answer: {answer}: this network classifies and has no map of pixels; leave it out")
    if window is None and hop is None:
        return Question(top=top, windows=None, form=answer)
    if is_image(name):
        raise RefusedError(400, "window, hop: an image has no time; leave them out")
    try:
        windows = sliding(predictor.model.config.test_clip, window=window, hop=hop, to_the_end=True)
    except ConfigError as error:
        raise RefusedError(400, " ".join(str(error).split()).replace("--", "")) from None
    return Question(top=top, windows=windows)


def _add_pages(app: FastAPI, predictor: Predictor, *, location: str, folders: AllowedFolders) -> None:
    config, limits = predictor.model.config, predictor.limits
    clip = config.test_clip
    stride = 1 if clip.num_frames == 1 else clip.frame_stride
    has_window = "videos" in predictor.takes and stride is not None
    server = ServerAnswer(
        model=location,
        experiment=config.name,
        takes=" and ".join(predictor.takes),
        segments=config.segmentation is not None,
        window=f"{clip.num_frames}x{stride}" if has_window else None,
        window_frames=clip.num_frames,
        class_names=list(predictor.model.names),
        allowed_folders=list(folders.folders),
        limits=LimitsAnswer(**{name: getattr(limits, name) for name in LimitsAnswer.model_fields}),
    )
    html, headers = page()

    @app.get("/", include_in_schema=False)
    async def root() -> HTMLResponse:
        return HTMLResponse(html, headers=headers)

    @app.get("/info")
    async def info() -> ServerAnswer:
        """What the server is, and the most that it takes."""
        return server

    @app.get("/health")
    async def health() -> HealthAnswer:
        """Whether a replica answers."""
        return HealthAnswer()


def _add_predictions(app: FastAPI, predictor: Predictor, *, folders: AllowedFolders, uploads: UploadFolder) -> None:
    async def answered(request: Request, path: str, name: str, question: Question) -> Response:
        found = await predictor.answer(path, question, _hung_up(request))
        if found.png is not None:
            return Response(found.png, media_type="image/png")
        return JSONResponse({**found.plain, "path": name})

    @app.post("/predict", response_model=PredictionAnswer, responses=_FAULTS, openapi_extra=_BODY)
    async def predict(
        request: Request,
        *,
        name: Annotated[str | None, Query(description="of the file; its extension tells images from videos")] = None,
        top: Annotated[int, Query(ge=1, description="classes to name")] = 5,
        window: Annotated[str | None, Query(description="as in 16x4: windows that slide over the video")] = None,
        hop: Annotated[str | None, Query(description="from one window to the next: 2s, or 8 frames")] = None,
        answer: Annotated[Form, Query(description=FORMS)] = "json",
    ) -> Response:
        """What the network sees in a file that is sent as the request's body."""
        with predictor.admitted():
            if request.headers.get("content-type", "").startswith("multipart/"):
                raise RefusedError(415, "the body is a form; it must be the file's bytes, as curl -T FILE sends them")
            name = name or ("image.jpg" if "images" in predictor.takes else "video")
            predictor.require_kind(name, unread=True)
            question = question_of(predictor, name=name, top=top, window=window, hop=hop, answer=answer)
            stated = request.headers.get("content-length", "")
            received = uploads.received(
                request.stream(),
                name=name,
                stated_bytes=int(stated) if stated.isdecimal() else None,
                limits=predictor.limits,
            )
            async with received as path:
                return await answered(request, path, name, question)

    @app.post("/predict/path", response_model=PredictionAnswer, responses=_FAULTS, openapi_extra=_QUESTION)
    async def predict_path(request: Request) -> Response:
        """What the network sees in a file of an allowed folder."""
        with predictor.admitted():
            asked = await _path_question(request, within_s=predictor.limits.stalled_s)
            place = folders.file(asked.path)
            predictor.require_kind(place)
            question = question_of(
                predictor, name=place, top=asked.top, window=asked.window, hop=asked.hop, answer=asked.answer
            )
            return await answered(request, place, asked.path, question)


async def _path_question(request: Request, *, within_s: float) -> PathQuestion:
    """The JSON of a request's body; what another site's page may send without being asked isn't read as such.

    Raises:
        RefusedError: It's something else, too much, or not there within a time, seconds.
        RequestValidationError: It's no question.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise RefusedError(415, "the body must be JSON, with Content-Type: application/json")
    body = bytearray()
    try:
        async with asyncio.timeout(within_s):
            async for piece in request.stream():
                body += piece
                if len(body) > _MOST_JSON_BYTES:
                    raise RefusedError(413, f"the body has more than {_MOST_JSON_BYTES:,} bytes", unread=True)
    except TimeoutError:
        raise RefusedError(408, f"not all of the body came within {within_s:g} s", unread=True) from None
    try:
        return PathQuestion.model_validate_json(bytes(body))
    except ValidationError as error:
        raise RequestValidationError(error.errors(include_url=False)) from None


async def _hung_up(request: Request) -> None:
    """Comes to its end when the sender hangs up; the body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
