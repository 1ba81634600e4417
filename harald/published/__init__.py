"""What is publicly known of the published models, as data with sources, and what a cached copy is compared with.

Nobody has to load weights for any of it: configurations, names and shapes of tensors, sizes of files.
"""
