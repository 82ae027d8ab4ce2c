"""Maps of strain, rotation, tilt and thickness over a scan.

:mod:`.settings` what can be chosen; :mod:`.cut` and :mod:`.sums` the parts and sums of patterns
that are fitted; :mod:`.calibrate` what all patterns have in common, kept as a :mod:`.calibration`;
:mod:`.maker` the fits of the points, and :mod:`.found` what they find; :mod:`.making` a map part by
part, which goes on after it was stopped; :mod:`.store` maps in files, :mod:`.export` those of other
programs; :mod:`.points` patterns of single points; :mod:`.example_scan` a scan of known strain.
"""
