"""Videos whose frames are stored one by one: folders and archives of pictures."""
