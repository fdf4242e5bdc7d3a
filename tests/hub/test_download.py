from hub_client import run_client


def test_probe(hub_server, tmp_path):
    (tmp_path/"f").mkdir(); (tmp_path/"f"/"config.json").write_text("{}"); (tmp_path/"f"/"model.safetensors").write_bytes(b"x"*100000)
    for lfs in (True, False):
        c1 = hub_server.add(f"a/b{lfs}", tmp_path/"f", "v1", lfs=lfs)
        (tmp_path/"f"/"model.safetensors").write_bytes(b"y"*100000)
        c2 = hub_server.add(f"a/b{lfs}", tmp_path/"f", lfs=lfs)
        code = f"""
import time; t=time.time()
import huggingface_hub as h, timm, rga_timm, rga_timm.hub
print('import', time.time()-t)
for r in (None, 'v1', {c1!r}, {c2!r}):
    p = h.hf_hub_download('a/b{lfs}', 'model.safetensors', revision=r); print(p, open(p).read(3))
for a in (('a/none','config.json'), ('a/b{lfs}','none'), ('a/b{lfs}', 'config.json', 'v7')):
    try: h.hf_hub_download(a[0], a[1], revision=a[2] if len(a)>2 else None)
    except Exception as e: print(type(e), type(e).__mro__, e)
print(h.HfApi().model_info('a/b{lfs}', files_metadata=True))
"""
        done = run_client(code, hub_server.url, tmp_path/"home")
        print(done.stdout, done.stderr)
    assert 0
