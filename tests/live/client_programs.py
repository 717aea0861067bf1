"""What a person would write to fetch one page, in the languages whose clients are tried.

Each program gets the URL as its argument and the proxy from `http_proxy`, and prints what its
client tells it: the status, the phrase and the content, or the error.
"""

REQUESTS = """
import sys, requests
try:
    answer = requests.get(sys.argv[1], timeout=10)
    print(answer.status_code, answer.reason, answer.text)
except requests.RequestException as error:
    print(error)
"""
HTTPX = """
import sys, httpx
try:
    answer = httpx.get(sys.argv[1], timeout=10)
    print(answer.status_code, answer.reason_phrase, answer.text)
except httpx.HTTPError as error:
    print(error)
"""
URLLIB = """
import sys, urllib.error, urllib.request
try:
    print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())
except urllib.error.URLError as error:
    print(error)
"""
# argv: the URL, the folder of undici
UNDICI = """
const { ProxyAgent, request } = require(process.argv[2]);
const ca = require('fs').readFileSync(process.env.NODE_EXTRA_CA_CERTS);
const dispatcher = new ProxyAgent({ uri: process.env.http_proxy, requestTls: { ca } });
request(process.argv[1], { dispatcher })
  .then(async (answer) => console.log(answer.statusCode, await answer.body.text()))
  .catch((error) => console.log(error.message))
  .finally(() => dispatcher.close());
"""
NODE_FETCH = """
const { ProxyAgent, setGlobalDispatcher } = require(process.argv[2]);
const ca = require('fs').readFileSync(process.env.NODE_EXTRA_CA_CERTS);
setGlobalDispatcher(new ProxyAgent({ uri: process.env.http_proxy, requestTls: { ca } }));
fetch(process.argv[1])
  .then(async (answer) => console.log(answer.status, answer.statusText, await answer.text()))
  .catch((error) => { for (; error; error = error.cause) console.log(error.message); });
"""
# argv: the URL, the folder in which npm keeps http-proxy-agent and https-proxy-agent
NODE_AGENT = """
const [, url, modules] = process.argv;
const scheme = url.split(':')[0];
const agents = require(`${modules}/${scheme}-proxy-agent`);
const agent = new (agents.HttpsProxyAgent || agents.HttpProxyAgent)(process.env.http_proxy);
require(scheme).get(url, { agent }, (answer) => {
  console.log(answer.statusCode, answer.statusMessage);
  answer.pipe(process.stdout);
}).on('error', (error) => console.log(error.message));
"""
GO = """
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
)

func main() {
	answer, err := http.Get(os.Args[1])
	if err != nil {
		fmt.Println(err)
		return
	}
	text, _ := io.ReadAll(answer.Body)
	fmt.Println(answer.Status, string(text))
}
"""
# The JDK reads no environment variable for its proxy, so that the program does.
JAVA = """
import java.io.IOException;
import java.net.*;
import java.net.http.*;

class Fetch {
    public static void main(String[] arguments) throws InterruptedException {
        URI proxy = URI.create(System.getenv("http_proxy"));
        HttpClient.Builder client = HttpClient.newBuilder()
            .proxy(ProxySelector.of(new InetSocketAddress(proxy.getHost(), proxy.getPort())));
        if (proxy.getUserInfo() != null) {
            String[] parts = proxy.getUserInfo().split(":");
            client.authenticator(new Authenticator() {
                protected PasswordAuthentication getPasswordAuthentication() {
                    return new PasswordAuthentication(parts[0], parts[1].toCharArray());
                }
            });
        }
        HttpRequest request = HttpRequest.newBuilder(URI.create(arguments[0])).build();
        try {
            HttpResponse<String> answer =
                client.build().send(request, HttpResponse.BodyHandlers.ofString());
            String reason = answer.headers().firstValue("x-deny-reason").orElse("no reason");
            System.out.println(answer.statusCode() + " " + reason + " " + answer.body());
        } catch (IOException error) {
            System.out.println(error.getMessage());
        }
    }
}
"""
