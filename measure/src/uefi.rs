//! UEFI structures that are measured, or that decide what is: variables, and the store that firmware images carry.

pub mod authority;
pub mod fat;
pub mod gpt;
pub mod load_option;
pub mod signature_list;
pub mod variable;
pub mod varstore;

pub use authority::{Authority, AuthorityError};
pub use variable::{Name, SecureBootVariables, variable_data};
pub use varstore::{StoredVariable, VariableStore, VarstoreError};
