use crate::model::Model;
pub(crate) fn emit(_: &Model) -> String {
    String::new()
}
