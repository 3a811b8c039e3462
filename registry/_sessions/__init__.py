"""How one user's things live and die; private to the registry."""
