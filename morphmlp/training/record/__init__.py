"""What a run keeps of itself: its folder, its ledger of consumed videos, its points, and where its time went."""
