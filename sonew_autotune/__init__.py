"""Tuning: measures kernel configurations on this machine and keeps the winners where `sonew` finds them."""
