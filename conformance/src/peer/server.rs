//! The side that connects and sends: it does what a check asks for, until that closes its end.

use std::fs::File;
use std::io::{Error, ErrorKind, Result};
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};

use super::impairment::InEffect;
use super::protocol::{Messages, Plain, Request, Response};
use super::scripts::{Scripts, Waited};
use crate::isolation::Link;
use crate::verdict::Skip;

/// What a check may ask for.
#[derive(Debug)]
pub(super) enum Rights {
    /// Everything: it is this machine's, and has started this process.
    Own,
    /// Connections to these addresses.
    Addresses(Vec<IpAddr>),
}

/// A session: what is done for one check.
#[derive(Debug)]
pub(super) struct Service {
    rights: Rights,
    pub(super) scripts: Scripts,
    impairment: Option<InEffect>,
}

/// Does what the check asks for that has started this process.
pub(crate) fn serve(link: &Link) -> Result<()> {
    Service::new(Rights::Own).serve(&mut Plain(link))
}

impl Service {
    pub(super) fn new(rights: Rights) -> Self {
        Self { rights, scripts: Scripts::default(), impairment: None }
    }

    /// Answers until the other side closes its end. Whatever was started for it ends then.
    pub(super) fn serve(&mut self, messages: &mut impl Messages) -> Result<()> {
        let served = self.answer_all(messages);
        self.impairment = None;
        self.scripts.end();
        served
    }

    fn answer_all(&mut self, messages: &mut impl Messages) -> Result<()> {
        loop {
            let request = match messages.receive() {
                Ok(request) => request,
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
                Err(error) => return Err(error),
            };
            let response = self.answer(request).unwrap_or_else(|error| Response::Refused {
                errno: error.raw_os_error(),
                text: error.to_string(),
            });
            messages.send(&response)?;
        }
    }

    fn answer(&mut self, request: Request) -> Result<Response> {
        match request {
            Request::Enter { namespace } => self.enter(&namespace)?,
            Request::Reach { to } => {
                if let Some(skip) = self.forbidden(to) {
                    return Ok(Response::Declined { skip });
                }
            }
            Request::Start { number, script } => {
                if let Some(skip) = self.forbidden(script.to.ip()) {
                    return Ok(Response::Declined { skip });
                }
                self.scripts.start(number, script)?;
            }
            Request::Proceed { number } => self.scripts.proceed(number)?,
            Request::Finish { number, milliseconds } => {
                return Ok(match self.scripts.wait(number, Duration::from_millis(milliseconds))? {
                    Waited::Ended(told) => Response::Ended { told },
                    Waited::NotYet => Response::Late,
                    Waited::Died => Response::Died,
                });
            }
            Request::Abort { number } => self.scripts.abort(number),
            Request::Impair { to, impairment } => {
                if let Some(skip) = self.forbidden(to) {
                    return Ok(Response::Declined { skip });
                }
                // One of this session in place of another.
                self.impairment = None;
                match InEffect::new(to, &impairment) {
                    Ok(in_effect) => self.impairment = Some(in_effect),
                    Err(skip) => return Ok(Response::Declined { skip }),
                }
            }
            Request::Lift => {
                let lifted = self.impairment.take().map(InEffect::lift).transpose()?;
                return Ok(Response::Lifted { impaired: lifted.unwrap_or_default() });
            }
        }
        Ok(Response::Done)
    }

    /// The threads of scripts are started by this one, and so in the same namespace.
    fn enter(&self, namespace: &Path) -> Result<()> {
        match self.rights {
            Rights::Own => Ok(setns(File::open(namespace)?, CloneFlags::CLONE_NEWNET)?),
            Rights::Addresses(_) => {
                Err(Error::other("a peer of another machine stays in its network namespace"))
            }
        }
    }

    /// Why nothing may be sent to an address.
    fn forbidden(&self, to: IpAddr) -> Option<Skip> {
        match &self.rights {
            Rights::Own => None,
            Rights::Addresses(allowed) if allowed.contains(&to.to_canonical()) => None,
            // Without the address itself: it would be in reports, which are published.
            Rights::Addresses(_) => Some(Skip {
                reason: format!(
                    "the peer may not send to the NIC's address of {}",
                    if to.to_canonical().is_ipv4() { "IPv4" } else { "IPv6" }
                ),
                found_by: "asking the peer".to_owned(),
                remedy: Some("start the peer with `--to` and that address".to_owned()),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::script::Script;

    fn start(to: &str) -> Request {
        let script = Script {
            to: to.parse().unwrap(),
            from_port: None,
            no_delay: false,
            maximum_segment: None,
            steps: Vec::new(),
        };
        Request::Start { number: 0, script }
    }

    #[test]
    fn a_stranger_is_sent_to_where_it_may_be_sent_to() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut service = Service::new(Rights::Addresses(vec!["127.0.0.1".parse().unwrap()]));
        let declined = |response: Response| match response {
            Response::Declined { skip } => format!("{}; {}", skip.reason, skip.remedy.unwrap()),
            response => panic!("{response:?}"),
        };
        let told = declined(service.answer(start("192.0.2.1:5201")).unwrap());
        assert!(told.contains("IPv4") && told.contains("--to") && !told.contains("192"), "{told}");
        let told = declined(service.answer(start("[::1]:5201")).unwrap());
        assert!(told.contains("IPv6"), "{told}");
        declined(service.answer(Request::Reach { to: "192.0.2.1".parse().unwrap() }).unwrap());
        let impairment = crate::peer::Impairment::default();
        declined(service.answer(Request::Impair { to: "192.0.2.1".parse().unwrap(), impairment }).unwrap());
        let port = listener.local_addr().unwrap().port();
        assert!(matches!(service.answer(start(&format!("127.0.0.1:{port}"))).unwrap(), Response::Done));
        assert!(matches!(
            service.answer(Request::Reach { to: "::ffff:127.0.0.1".parse().unwrap() }).unwrap(),
            Response::Done
        ));
    }

    #[test]
    fn a_stranger_leads_nobody_into_a_namespace() {
        let mut service = Service::new(Rights::Addresses(Vec::new()));
        let error = service.answer(Request::Enter { namespace: "/proc/self/ns/net".into() }).unwrap_err();
        assert!(error.to_string().contains("stays"), "{error}");
    }
}
