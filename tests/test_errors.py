from collegium.errors import StorageError, UsageError, nearest, out_of_memory


def test_what_is_too_long_to_read_is_cut() -> None:
    assert str(UsageError("short words stay")) == "short words stay"
    assert str(UsageError(f"no {'x' * 10**6} here")) == f"no {'x' * 80}...{'x' * 40} here"
    assert len(str(StorageError("a b " * 10**6))) <= 1003


def test_a_long_list_of_what_is_known_is_begun() -> None:
    assert nearest("zzz", ["a", "c", "b"]) == "; known are: a, b, c"
    told = nearest("zzz", [f"name{k:03}" for k in range(100)])
    assert told.startswith("; known are: name000, name001") and told.endswith(" more") and len(told) < 200


def test_errors_of_memory_are_known_by_what_they_say() -> None:
    assert out_of_memory(MemoryError())
    for said in (
        "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory",
        "CUDA out of memory. Tried to allocate 20.00 MiB",
        "Failed to allocate memory for requested buffer of size 4000000000000",
    ):
        assert out_of_memory(RuntimeError(said))
    assert not out_of_memory(RuntimeError("shapes do not match"))
