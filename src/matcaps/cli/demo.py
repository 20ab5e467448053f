"""``matcaps demo``."""

from matcaps.cli.parsing import PLAIN, SOURCE, add_accelerator, err, make_parser, out

_DEFAULT = "tutorial-mnist"


def demo_command(arguments: list[str]) -> int:
    """Serve a web page on which to try a network: draw, look inside, attack it."""
    parser = make_parser(
        "demo",
        "Serve a web page on which to try a network: draw a digit or choose an image, see the class "
        "activations, the votes and the poses, attack it, rotate smallNORB's objects. Needs the extra matcaps[demo].",
    )
    parser.add_argument("run", type=str, nargs="?", default=_DEFAULT, help=f"{SOURCE}; default: {_DEFAULT}")
    parser.add_argument(
        "--smallnorb", type=str, default="paper-small-smallnorb", help="the network of the smallNORB page; as RUN"
    )
    parser.add_argument("--root", type=str | None, help="folder that holds the data sets")
    parser.add_argument("--host", type=str, default="127.0.0.1", help="address to serve at; 0.0.0.0: to all machines")
    parser.add_argument("--port", type=int | None, help="port to serve at; default: the first free one from 7860")
    add_accelerator(parser)
    parser.add_argument("--no_browser", action="store_true", help="only print the page's address, open no browser")
    parsed = parser.parse_args(arguments)
    if parsed.port is not None and not 1 <= parsed.port <= 65535:
        raise ValueError(f"port must be from 1 to 65535; got {parsed.port}")
    from matcaps.demo.ports import check_address, is_open_to_others

    check_address(parsed.host, parsed.port)
    try:
        from matcaps.demo.app import serve
    except ImportError as error:
        raise ValueError(str(error)) from error
    import torch

    from matcaps.demo.session import open_demo
    from matcaps.demo.viewpoints import open_viewer

    torch.set_num_threads(1)  # as serve does, for what comes before
    open_viewer(parsed.smallnorb)
    demo = open_demo(parsed.run, root=parsed.root, accelerator=parsed.accelerator)
    server = serve(
        demo,
        smallnorb=parsed.smallnorb,
        root=parsed.root,
        accelerator=parsed.accelerator,
        host=parsed.host,
        port=parsed.port,
        browser=not parsed.no_browser,
    )
    out.print(f"demo of {parsed.run}: {server.url} (stop it with Ctrl-C)", **PLAIN)
    if is_open_to_others(parsed.host):
        err.print(
            f"matcaps demo: warning: {parsed.host} is open to other machines: everybody who can reach this one can use "
            "the page and upload pictures to it; there is no password",
            **PLAIN,
        )
    server.wait()
    return 0
