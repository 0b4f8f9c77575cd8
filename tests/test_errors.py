from collegium.errors import StorageError, UsageError, nearest


def test_what_is_too_long_to_read_is_cut() -> None:
    assert str(UsageError("short words stay")) == "short words stay"
    assert str(UsageError(f"no {'x' * 10**6} here")) == f"no {'x' * 80}...{'x' * 40} here"
    assert len(str(StorageError("a b " * 10**6))) <= 1003


def test_a_long_list_of_what_is_known_is_begun() -> None:
    assert nearest("zzz", ["a", "c", "b"]) == "; known are: a, b, c"
    told = nearest("zzz", [f"name{k:03}" for k in range(100)])
    assert told.startswith("; known are: name000, name001") and told.endswith(" more") and len(told) < 200
