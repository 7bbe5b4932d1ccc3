//! What calls cost: price tables, meters, budgets. Pure.
