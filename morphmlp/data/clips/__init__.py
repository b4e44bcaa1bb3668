"""Clips out of decoded videos: which frames, which draws, which pixels.

`extract` has the clip extractors that decode tasks carry; `draws` what chance decides, as values; `sampling`, `augment`
and `rand_augment` the arithmetic.
"""
