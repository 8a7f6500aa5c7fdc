"""The equations of the zoo's cells in NumPy, a module for each family of zoo.cells.

Each module has ORACLES, a function for each cell by its name in CELLS, and CASES, options of cells
that change their equations: {case: (cell, options)}; the options are passed to cell and oracle alike.
"""
