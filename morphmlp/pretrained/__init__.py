"""Networks by name or from a folder, with their weights: as in timm, in torch.hub and on the Hugging Face Hub."""
