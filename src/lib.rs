//! Process, Pool, Queue, Pipe and Lock over shared memory.
