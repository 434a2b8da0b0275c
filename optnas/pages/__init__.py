"""The frame of every HTML page, and what a page holds: texts, tables, plots, drawings.

A page is data (:mod:`optnas.pages.content`, :mod:`optnas.pages.plots`); only the frame writes
HTML. It lies below reports and experiments, which give it what they found, and above everything
that trains, which needs no page. It knows neither studies nor trials.
"""
