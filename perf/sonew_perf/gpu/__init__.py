"""Everything a machine with a GPU can say of this package, in one resumable run: `sonew-perf gpu`."""
