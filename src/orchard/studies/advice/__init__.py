"""The parts of `orchard advise`: figures, changes, intervals, reasons, commands. `studies/advise.py` joins them."""
