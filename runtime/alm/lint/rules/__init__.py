"""Rules of the lint. A file is a group of rules, each a function under `@rule(...)`."""
