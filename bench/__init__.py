"""How fast it is, each figure beside its floor and its peers in the same run (`make bench`)."""
