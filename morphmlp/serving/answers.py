"""What the server says, as OpenAPI documents it."""

from pydantic import BaseModel, Field

from morphmlp.serving.scene_answers import Form

FORMS = "segmented: shares of classes (json), these and the map (both), the map or the image under it as a PNG"
"""What `Form` is, for who asks."""


class GuessAnswer(BaseModel):
    """A class that the network takes for possible."""

    label: int = Field(description="number of the class, from 0")
    name: str
    probability: float = Field(description="of an image that is segmented: the share of its pixels")
    colour: str | None = Field(None, description="segmented: that of the class on its map, as in #1f77b4")


class WindowAnswer(BaseModel):
    """A part of a video."""

    start_s: float = Field(description="seconds from the first frame")
    end_s: float
    top: list[GuessAnswer] = Field(description="the most probable classes, the first one first")


class PredictionAnswer(BaseModel):
    """What the network says of a file."""

    path: str = Field(description="the path, or the name of an upload, as it was sent")
    top: list[GuessAnswer] = Field(description="of the whole: by the mean of its views' or windows' logits")
    logits: list[float] = Field(
        [], description="of each class: the sum over the test's views, over time the windows' mean"
    )
    fps: float = Field(0.0, description="over time: frames per second")
    num_frames: int = Field(0, description="over time: frames of the video")
    windows: list[WindowAnswer] = Field([], description="over time: in order")
    height: int = Field(0, description="segmented: rows of the image")
    width: int = Field(0, description="segmented: its columns")
    map: str | None = Field(None, description="segmented, with answer=both: a PNG in base64, of each pixel its class")


class LimitsAnswer(BaseModel):
    """The most that a request may ask for."""

    upload_bytes: int
    queued: int
    seconds: float
    frames: int
    gigapixels: float
    windows: int
    upload_s: float


class ServerAnswer(BaseModel):
    """What the server is and takes."""

    model: str = Field(description="checkpoint or file of the weights")
    experiment: str
    takes: str = Field(description="`videos`, `images`, or `images and videos`")
    segments: bool = Field(description="whether each pixel gets a class")
    window: str | None = Field(description="the window over time by default; null: one must be named")
    window_frames: int = Field(description="frames of every window")
    class_names: list[str]
    allowed_folders: list[str] = Field(description="of which files may be named")
    limits: LimitsAnswer


class HealthAnswer(BaseModel):
    """The server answers."""

    status: str = "ok"


class PathQuestion(BaseModel, extra="forbid"):
    """A file that the server can read."""

    path: str
    top: int = Field(5, ge=1)
    window: str | None = Field(None, description="as in 16x4: look at windows that slide over the video")
    hop: str | None = Field(None, description="from one window to the next: 2s, or 8 frames")
    answer: Form = Field("json", description=FORMS)


class ErrorAnswer(BaseModel):
    """Why there is no answer."""

    error: str = Field(description="one line")
