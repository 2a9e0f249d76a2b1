//! local_pool
