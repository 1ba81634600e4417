"""A local stand-in for Modal's service: no account, no internet.

It speaks the gRPC protocol that ships inside the `modal` wheel (modal_proto), so the real command line
(`modal run -m ...`) and the real container entrypoint are used; only the cloud between them is ours. Function bodies
really run: a container is a process with only the uploaded files on its path, with the volumes bind-mounted at their
mount paths (read-only where asked) and with the secrets and `Image.env` in its environment.

    python -m tests.fakemodal --state STATE --secret HF_SECRET=HUGGINGFACE_TOKEN:hf_dummy -- \
        modal run -m harald.modal_runner::doctor --preset mini

What the app asked for stands in STATE/app.json afterwards; volumes are plain folders under STATE/volumes.

Not covered: image builds (a container runs this interpreter and its packages), GPUs, timeouts, limits of CPU and
memory, snapshot isolation of volumes (a commit is only counted), classes, generators, web endpoints. Private parts of
the wheel are used: proven with modal 1.6.4.
"""
