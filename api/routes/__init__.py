"""HTTP endpoints: each module is one room of the address space. They translate; the deciding happens behind them."""
