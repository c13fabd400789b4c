"""Alerts: alarms on their way to a person.

An alarm is a row of state.db, written in the commit of what caused it or in the next. The rows are the outbox: each way
out (a *channel*) reads what it has not delivered yet, sends it, and records that. So an alert survives a restart and a
dead mail server, may arrive twice if the daemon dies between the two (receivers find its id in it), and nothing that
trades ever waits for any of this.
"""
