"""Folders of pictures -> states, checks, prompts, pairs, latents."""
