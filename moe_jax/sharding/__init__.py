"""Device meshes, logical axes, sharding rules, and runs of several processes."""
