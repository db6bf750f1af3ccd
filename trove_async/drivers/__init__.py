"""The drivers: one room for each kind of backend."""
