"""Meshes of devices, logical axis names, and how a program is cut along them."""
