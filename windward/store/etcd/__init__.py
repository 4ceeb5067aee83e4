"""The store on etcd: a thin asyncio client of our own on grpc.aio, with the rules that keep events from being lost.

Source: https://etcd.io/docs/v3.5/learning/api/ ; the failures behind each rule are tests in tests/fault.
"""
