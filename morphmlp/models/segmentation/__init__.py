"""Networks that give each pixel a class: decoders on the four maps of a backbone."""
