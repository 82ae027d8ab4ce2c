"""Scans: a pattern at each of many points, in files of microscopes or in memory.

:mod:`.files` what files hold and say; :mod:`.scan` a scan, however it is kept; :mod:`.overview`
what it looks like before anything is fitted; :mod:`.writing` scans written to files.
"""
