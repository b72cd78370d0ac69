"""Somebody is listened to: utterances, heard by any model, as events."""
