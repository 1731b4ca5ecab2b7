"""The kernels compiled for GPUs that need not be here: stages, resources, a model that ranks."""
