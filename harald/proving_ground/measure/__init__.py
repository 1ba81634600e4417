"""How the bars of the small world are measured: held-out persons, what the small models make of them, the judge."""
