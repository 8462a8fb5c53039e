//! The MQTT link to the farm controller.
