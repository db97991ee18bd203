//! The integration tests: the whole program from outside, and the tidiness of the tree.

mod tidy;
