//! Which stores a view's rows are read from, and in which order. Pure.

use std::{collections::HashMap, sync::Arc};

use crate::{model::StoreId, registry::StoredView};

/// The stores of a view, the first one first. Never empty.
pub(super) type Route = Arc<[StoreId]>;

/// Who is asked for the rows of each view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteTable {
    /// Of views that are not in [`views`](Self::views).
    pub default: Vec<RouteStep>,
    /// By the view's name in the registry.
    pub views: HashMap<String, Vec<RouteStep>>,
    /// The stores of Feast's `hybrid`, by the value of its tag, in lower case.
    pub tagged: HashMap<Arc<str>, StoreId>,
    /// Whether the next store is asked, too, where one has no such row.
    pub next_on_absence: bool,
}

/// A place in an order of stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteStep {
    /// The store that `feature_store.yaml` names for the view.
    Feast,
    /// One of the configured stores.
    Store(StoreId),
}

impl RouteTable {
    /// The stores of a view. One that is named twice is asked once.
    pub(super) fn of(&self, stored: &StoredView) -> Route {
        let steps = self.views.get(&*stored.view.name).unwrap_or(&self.default);
        let mut route = Vec::with_capacity(steps.len());
        for step in steps {
            let store = match step {
                RouteStep::Feast => self.of_feast(stored),
                RouteStep::Store(store) => *store,
            };
            if !route.contains(&store) {
                route.push(store);
            }
        }
        if route.is_empty() {
            route.push(self.of_feast(stored));
        }
        route.into()
    }

    fn of_feast(&self, stored: &StoredView) -> StoreId {
        let tagged = stored.routed_by.as_ref().and_then(|value| self.tagged.get(value));
        tagged.copied().unwrap_or(StoreId(0))
    }
}

impl Default for RouteTable {
    /// One store for all views.
    fn default() -> Self {
        Self {
            default: vec![RouteStep::Feast],
            views: HashMap::new(),
            tagged: HashMap::new(),
            next_on_absence: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{FeatureView, ViewId, ViewKind};

    fn route(table: &RouteTable, name: &str, tag: Option<&str>) -> Vec<u8> {
        let view = FeatureView {
            id: ViewId(1),
            project: "p".into(),
            name: name.into(),
            version: None,
            kind: ViewKind::Batch,
            features: Box::default(),
            join_keys: Box::default(),
            max_age: None,
        };
        let routed_by = tag.map(Arc::from);
        let stored = StoredView { view: Arc::new(view), current_version: 0, routed_by };
        table.of(&stored).iter().map(|store| store.0).collect()
    }

    #[test]
    fn a_view_has_its_own_stores_or_those_of_all_and_its_tags_in_feasts_place() {
        use RouteStep::{Feast, Store};
        let table = RouteTable {
            default: vec![Feast, Store(StoreId(2))],
            views: [("fast".to_owned(), vec![Store(StoreId(2)), Feast])].into(),
            tagged: [("redis".into(), StoreId(1)), ("sqlite".into(), StoreId(2))].into(),
            next_on_absence: false,
        };
        assert_eq!(route(&table, "any", None), [0, 2]);
        assert_eq!(route(&table, "any", Some("redis")), [1, 2]);
        assert_eq!(route(&table, "any", Some("sqlite")), [2], "it is asked once");
        assert_eq!(route(&table, "fast", Some("redis")), [2, 1]);
    }
}
