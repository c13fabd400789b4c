"""The request queue: one SQLite file that producers of any language, friendly or not, write rows into.

Nothing in the file is believed. It is opened only by `QueueReader`'s own thread, which Landlock confines to the
queue directory, and every row is checked before it reaches the engine.
"""
