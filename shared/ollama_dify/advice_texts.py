"""The words of `advice`, by key and language; commands are the same in every language.

Content: Dify's Ollama guide and Ollama's FAQ (https://github.com/ollama/ollama/blob/main/docs/faq.md).
"""

from __future__ import annotations

from typing import Final

__all__ = ["STEPS", "TEXTS"]

TEXTS: Final[dict[str, dict[str, str]]] = {
    "tried": {
        "en": "Tried {url} ({source}).",
        "ja": "接続先: {url}（{source}）。",
        "zh": "尝试的地址：{url}（{source}）。",
    },
    "source.base_url": {
        "en": "from the setting base_url",
        "ja": "設定 base_url",
        "zh": "来自设置 base_url",
    },
    "source.OLLAMA_HOST": {
        "en": "from the environment variable OLLAMA_HOST",
        "ja": "環境変数 OLLAMA_HOST",
        "zh": "来自环境变量 OLLAMA_HOST",
    },
    "source.default": {
        "en": "the default: neither base_url nor OLLAMA_HOST is set",
        "ja": "既定値。base_url も OLLAMA_HOST も未設定",
        "zh": "默认值：base_url 和 OLLAMA_HOST 均未设置",
    },
    "container": {
        "en": "This runs in a container, where localhost is "
        "the container itself: use base_url {docker_url} .",
        "ja": "コンテナ内の localhost はコンテナ自体を指します。"
        "base_url に {docker_url} を指定してください。",
        "zh": "程序在容器中运行，localhost 指容器本身：请将 base_url 设为 {docker_url} 。",
    },
    "add_host": {
        "en": "On a Linux host, start the container with --add-host=host.docker.internal:host-gateway.",
        "ja": "Linux ホストでは --add-host=host.docker.internal:host-gateway "
        "を付けてコンテナを起動してください。",
        "zh": "在 Linux 主机上，请用 --add-host=host.docker.internal:host-gateway 启动容器。",
    },
    "listen_host": {
        "en": "On the host, let Ollama listen beyond 127.0.0.1: set OLLAMA_HOST=0.0.0.0 and restart it.",
        "ja": "ホスト側では OLLAMA_HOST=0.0.0.0 を設定して Ollama を再起動してください"
        "（既定では 127.0.0.1 のみで待ち受けます）。",
        "zh": "在主机上设置 OLLAMA_HOST=0.0.0.0 并重启 Ollama（默认只监听 127.0.0.1）。",
    },
    "start": {
        "en": "Nothing answers on this machine: start Ollama with `ollama serve` (or its app), "
        "then check `curl {url}/api/version`.",
        "ja": "このマシンで応答がありません。`ollama serve`（またはアプリ）で Ollama を起動し、"
        "`curl {url}/api/version` で確認してください。",
        "zh": "本机没有响应：请用 `ollama serve`（或其应用）启动 "
        "Ollama，然后用 `curl {url}/api/version` 检查。",
    },
    "listen": {
        "en": "By default Ollama listens on 127.0.0.1 only. On "
        "{host}, set OLLAMA_HOST=0.0.0.0 and restart it:",
        "ja": "Ollama は既定で 127.0.0.1 のみで待ち受けます。{host} "
        "で OLLAMA_HOST=0.0.0.0 を設定し、再起動してください:",
        "zh": "Ollama 默认只监听 127.0.0.1。请在 {host} 上设置 OLLAMA_HOST=0.0.0.0 并重启：",
    },
    "short.macos": {
        "en": 'macOS: launchctl setenv OLLAMA_HOST "0.0.0.0"',
        "ja": 'macOS: launchctl setenv OLLAMA_HOST "0.0.0.0"',
        "zh": 'macOS：launchctl setenv OLLAMA_HOST "0.0.0.0"',
    },
    "short.linux": {
        "en": 'Linux: systemctl edit ollama.service, then Environment="OLLAMA_HOST=0.0.0.0" under [Service]',
        "ja": 'Linux: systemctl edit ollama.service で [Service] に Environment="OLLAMA_HOST=0.0.0.0" を追加',
        "zh": 'Linux：systemctl edit ollama.service，在 [Service] 下加 Environment="OLLAMA_HOST=0.0.0.0"',
    },
    "short.windows": {
        "en": "Windows: the user's environment variable OLLAMA_HOST",
        "ja": "Windows: ユーザー環境変数 OLLAMA_HOST",
        "zh": "Windows：用户环境变量 OLLAMA_HOST",
    },
    "dns": {
        "en": "The name {host} could not be resolved: check its spelling, or use the machine's IP address.",
        "ja": "ホスト名 {host} を解決できません。綴りを確認するか、IP アドレスを使ってください。",
        "zh": "无法解析主机名 {host}：请检查拼写，或改用 IP 地址。",
    },
    "dns_docker": {
        "en": "host.docker.internal exists only inside containers: on the host itself use localhost.",
        "ja": "host.docker.internal はコンテナ内でのみ有効です。ホスト上では localhost を使ってください。",
        "zh": "host.docker.internal 只在容器内有效：在主机上请用 localhost。",
    },
    "dns_service": {
        "en": "The name of a Compose service resolves only for containers on the same network.",
        "ja": "Compose のサービス名は同じネットワーク上のコンテナからのみ解決できます。",
        "zh": "Compose 服务名只能在同一网络的容器中解析。",
    },
    "tls": {
        "en": "The TLS handshake failed. Ollama itself speaks plain HTTP: try {http_url} .",
        "ja": "TLS ハンドシェイクに失敗しました。Ollama 自体は "
        "HTTP で動作します。{http_url} を試してください。",
        "zh": "TLS 握手失败。Ollama 本身使用普通 HTTP：请试 {http_url} 。",
    },
    "tls_proxy": {
        "en": "If a TLS proxy stands in front, check its certificate, or name its authority in `verify`.",
        "ja": "前段に TLS プロキシがある場合は証明書を確認するか、`verify` に認証局を指定してください。",
        "zh": "如果前面有 TLS 代理，请检查其证书，或在 `verify` 中指定证书颁发机构。",
    },
    "unreachable": {
        "en": "{host} did not answer: check the address, that the machine is on, "
        "and that its firewall lets port {port} through.",
        "ja": "{host} から応答がありません。アドレス、電源、"
        "ファイアウォール（ポート {port}）を確認してください。",
        "zh": "{host} 没有响应：请检查地址、机器是否开机，以及防火墙是否放行端口 {port}。",
    },
    "port": {
        "en": "An http:// address without a port means port 80; Ollama's own port is 11434.",
        "ja": "ポートを省いた http:// はポート 80 です。Ollama の既定ポートは 11434 です。",
        "zh": "不带端口的 http:// 地址表示端口 80；Ollama 的默认端口是 11434。",
    },
    "cloud": {
        "en": "Check this machine's internet connection and its proxy variables (HTTPS_PROXY).",
        "ja": "インターネット接続とプロキシ変数（HTTPS_PROXY）を確認してください。",
        "zh": "请检查本机的互联网连接和代理变量（HTTPS_PROXY）。",
    },
    "closest": {
        "en": "The server has: {names}.",
        "ja": "サーバーにある近い名前: {names}。",
        "zh": "服务器上有相近的模型：{names}。",
    },
    "have": {
        "en": "Nothing on the server is called like that; it has: {names}.",
        "ja": "近い名前はありません。サーバーにあるモデル: {names}。",
        "zh": "没有相近的名称；服务器上有：{names}。",
    },
    "have_none": {
        "en": "The server has no models yet.",
        "ja": "サーバーにはまだモデルがありません。",
        "zh": "服务器上还没有模型。",
    },
    "pull": {
        "en": "Get it with: ollama pull {model}",
        "ja": "取得するには: ollama pull {model}",
        "zh": "获取方法：ollama pull {model}",
    },
    "context": {
        "en": "Shorten the prompt, raise context_size (now {context_size}), "
        'or choose context_overflow="trim" to drop the oldest turns.',
        "ja": "プロンプトを短くするか、context_size（現在 {context_size}）を増やすか、"
        'context_overflow="trim" で古い会話を削ってください。',
        "zh": "请缩短提示、增大 context_size（当前 {context_size}），"
        '或选择 context_overflow="trim" 丢弃最早的对话。',
    },
    "context_maximum": {
        "en": "The model itself takes at most {maximum} tokens.",
        "ja": "このモデルの上限は {maximum} トークンです。",
        "zh": "该模型最多支持 {maximum} 个 token。",
    },
    "capability": {
        "en": "{model} cannot do this ({capability}): choose "
        "a model that lists it, see `ollama show {model}`",
        "ja": "{model} は {capability} に対応していません。"
        "対応モデルを選んでください（`ollama show {model}` で確認）",
        "zh": "{model} 不支持 {capability}：请选择支持的模型，可用 `ollama show {model}` 查看",
    },
    "capability.vision": {
        "en": "For images for example: llava, qwen2.5vl, gemma3.",
        "ja": "画像対応モデルの例: llava, qwen2.5vl, gemma3。",
        "zh": "支持图片的模型例如：llava、qwen2.5vl、gemma3。",
    },
    "capability.tools": {
        "en": "For tools for example: qwen3, llama3.1, mistral.",
        "ja": "ツール対応モデルの例: qwen3, llama3.1, mistral。",
        "zh": "支持工具的模型例如：qwen3、llama3.1、mistral。",
    },
    "capability.thinking": {
        "en": "For thinking for example: qwen3, deepseek-r1, gpt-oss; or leave `think` unset.",
        "ja": "思考対応モデルの例: qwen3, deepseek-r1, gpt-oss。または `think` を未設定にしてください。",
        "zh": "支持思考的模型例如：qwen3、deepseek-r1、gpt-oss；或不设置 `think`。",
    },
    "auth.cloud": {
        "en": "Make a key at https://ollama.com/settings/keys and set api_key or OLLAMA_API_KEY.",
        "ja": "https://ollama.com/settings/keys でキーを作成し、"
        "api_key または OLLAMA_API_KEY に設定してください。",
        "zh": "请在 https://ollama.com/settings/keys 创建密钥，并设置 api_key 或 OLLAMA_API_KEY。",
    },
    "auth.own": {
        "en": "Ollama itself asks for no key; the proxy in front of {host} does: set api_key or headers.",
        "ja": "Ollama 自体はキーを要求しません。{host} の前段のプロキシ用に "
        "api_key か headers を設定してください。",
        "zh": "Ollama 本身不需要密钥，是 {host} 前面的代理要求的：请设置 api_key 或 headers。",
    },
    "auth.signin": {
        "en": "This model runs in Ollama's cloud: sign in at {signin_url} , or with `ollama signin`.",
        "ja": "このモデルはクラウドで動作します。{signin_url} "
        "または `ollama signin` でサインインしてください。",
        "zh": "该模型在 Ollama 云端运行：请在 {signin_url} 登录，或使用 `ollama signin`。",
    },
}

STEPS: Final[dict[str, tuple[tuple[dict[str, str], str | None], ...]]] = {
    "macos": (
        (
            {
                "en": "Set the variable for applications:",
                "ja": "`launchctl setenv` を呼び出して環境変数を設定:",
                "zh": "用 `launchctl setenv` 设置环境变量：",
            },
            'launchctl setenv OLLAMA_HOST "0.0.0.0"',
        ),
        (
            {
                "en": "Quit and start the Ollama application again.",
                "ja": "Ollama アプリケーションを再起動します。",
                "zh": "重启 Ollama 应用程序。",
            },
            None,
        ),
    ),
    "linux": (
        (
            {
                "en": "Edit the service; this opens an editor:",
                "ja": "systemd サービスを編集します（エディタが開きます）:",
                "zh": "编辑 systemd 服务（会打开编辑器）：",
            },
            "sudo systemctl edit ollama.service",
        ),
        (
            {
                "en": "Add these lines, save and leave:",
                "ja": "次の行を追加し、保存して終了します:",
                "zh": "加入以下内容，保存并退出：",
            },
            '[Service]\nEnvironment="OLLAMA_HOST=0.0.0.0"',
        ),
        (
            {
                "en": "Reload systemd and restart Ollama:",
                "ja": "systemd をリロードし、Ollama を再起動します:",
                "zh": "重新加载 systemd 并重启 Ollama：",
            },
            "sudo systemctl daemon-reload\nsudo systemctl restart ollama",
        ),
    ),
    "windows": (
        (
            {
                "en": "Quit Ollama from the task bar.",
                "ja": "タスクバーから Ollama を終了します。",
                "zh": "在任务栏中退出 Ollama。",
            },
            None,
        ),
        (
            {
                "en": "Set the environment variable OLLAMA_HOST for "
                "your account in the Control Panel, or with:",
                "ja": "コントロールパネルでユーザー環境変数 OLLAMA_HOST を設定するか、次を実行します:",
                "zh": "在控制面板中为您的账户设置环境变量 OLLAMA_HOST，或运行：",
            },
            "setx OLLAMA_HOST 0.0.0.0",
        ),
        (
            {
                "en": "Start Ollama from a new terminal:",
                "ja": "新しいターミナルで Ollama を起動します:",
                "zh": "在新的终端中启动 Ollama：",
            },
            "ollama serve",
        ),
    ),
    "docker": (
        (
            {
                "en": "Let the container reach the host (needed on Linux, harmless elsewhere):",
                "ja": "コンテナからホストに届くようにします（Linux で必要、他では無害）:",
                "zh": "让容器能访问主机（Linux 必需，其他系统无害）：",
            },
            "docker run --add-host=host.docker.internal:host-gateway …",
        ),
        (
            {
                "en": "Use this as the Base URL:",
                "ja": "基本 URL に次を指定します:",
                "zh": "将基础 URL 设为：",
            },
            "http://host.docker.internal:11434",
        ),
    ),
    "compose": (
        (
            {
                "en": "Add to the service in compose.yaml:",
                "ja": "compose.yaml のサービスに追加します:",
                "zh": "在 compose.yaml 的服务中加入：",
            },
            'extra_hosts:\n  - "host.docker.internal:host-gateway"',
        ),
        (
            {
                "en": "Use this as the Base URL (http://ollama:11434 if Ollama is a service called ollama):",
                "ja": "基本 URL に次を指定します（Ollama がサービス ollama なら http://ollama:11434）:",
                "zh": "将基础 URL 设为（若 Ollama 是名为 ollama 的服务，则用 http://ollama:11434）：",
            },
            "http://host.docker.internal:11434",
        ),
    ),
}
