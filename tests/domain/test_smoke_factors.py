import pytest, pyotp, time
from tests.conftest import Hub, PASSWORD
pytestmark=pytest.mark.anyio
async def test_x(hub: Hub) -> None:
    a=await hub.admin.post("/api/v1/auth/factors", json={"type":"totp","name":"phone"})
    print(a.text); assert a.status_code==201
    f=a.json(); otp=pyotp.TOTP(f["secret"])
    a=await hub.admin.post(f"/api/v1/auth/factors/{f['id']}/confirm", json={"code":otp.at(time.time()-30)})
    print(a.text); assert a.status_code==200
    a=await hub.admin.post("/api/v1/auth/recovery-codes"); print(a.text); assert a.status_code==200
    a=await hub.client().post("/api/v1/auth/login", json={"email":"admin@example.org","password":PASSWORD}); print(a.text); assert a.status_code==401
    t=a.json()["mfa"]["token"]
    a=await hub.client().post("/api/v1/auth/mfa", json={"mfa_token":t,"method":"totp","code":otp.now()}); print(a.text); assert a.status_code==200
    a=await hub.admin.get("/api/v1/auth/factors"); print(a.text); assert a.status_code==200
    a=await hub.admin.post("/api/v1/auth/passkey/options"); print(a.text); assert a.status_code==200
