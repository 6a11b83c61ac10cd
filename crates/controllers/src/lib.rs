//! The controllers, one file or folder each, listed in one table.
