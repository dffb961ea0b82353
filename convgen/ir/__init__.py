"""The intermediate representation: loop nests over named buffers, down to vector loads, stores and multiply-adds."""
