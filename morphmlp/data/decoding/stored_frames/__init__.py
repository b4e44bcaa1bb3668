"""Videos whose frames are stored one by one as JPEG or PNG: `frame_stores` opens and packs them."""
