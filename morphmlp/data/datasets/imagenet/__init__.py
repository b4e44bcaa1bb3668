"""ImageNet-1K, and sets of images in its layouts, as people hold them: `prepare.read_images` reads any of the forms."""
