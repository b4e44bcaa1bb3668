"""The slow link carries every byte, both ways."""

import socket
import threading

from morphmlp.drill.services import SlowLink


def test_a_slow_link_carries_both_ways():
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            connection, _ = server.accept()
            with connection:
                got = b""
                while len(got) < 50_000:
                    got += connection.recv(65536)
                connection.sendall(got[::-1])

        thread = threading.Thread(target=answer)
        thread.start()
        link = SlowLink(server.getsockname()[1])
        link.bytes_per_s = 1e6
        sent = bytes(range(250)) * 200
        with socket.create_connection(("127.0.0.1", link.port)) as near:
            near.sendall(sent)
            found = b""
            while len(found) < len(sent):
                found += near.recv(65536)
        thread.join()
        link.close()
    assert found == sent[::-1]
