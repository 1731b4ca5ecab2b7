"""Backends: each module steps one kind of group and imports exactly one framework."""
