"""Fitting the simulated hand to a recorded one (appendix C.3).

``recordings``: what a hand did, from MCAP, rosbag or CSV, and what is wrong with it.
``factors``: what is fitted, as named factors around a calibration file.
``replay``: many windows of a recording, open loop, on many hands at once.
``fit``: coordinate descent as in the paper, least squares, and what data cannot tell.
``report``: one page.
``hidden``: a simulated hand that a fit has to find.
"""
