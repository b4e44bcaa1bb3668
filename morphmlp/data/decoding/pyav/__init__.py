"""The default decoder, `decoder.PyAVDecoder`: exact frames with FFmpeg's libraries in one thread."""
